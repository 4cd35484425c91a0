"""How bright things are, by contrast.

Tissues are absolute (1 = the brightest fat); what lesions are made of is a multiple of grey matter. Each pair is the
range that a sample draws from.
"""

TISSUES = {
    "flair": dict(grey=(.56, .64), white=(.44, .52), csf=(.06, .14), fat=(.6, 1.3), skull=(.03, .07), marrow=(.15, .4),
                  orbit=(.2, .6)),
    "t2": dict(grey=(.48, .56), white=(.34, .42), csf=(.85, 1.), fat=(.5, 1.3), skull=(.03, .07), marrow=(.15, .4),
               orbit=(.3, .8)),
    "t1": dict(grey=(.42, .5), white=(.58, .66), csf=(.1, .18), fat=(.7, 1.3), skull=(.03, .07), marrow=(.2, .5),
               orbit=(.3, .8)),
}

MATERIALS = {
    "flair": dict(infarct=(1.35, 1.6), gliosis=(1.3, 1.5), void=(.05, .1), faint=(1.15, 1.25), oedema=(1.3, 1.5),
                  meningioma=(1.08, 1.3), subdural=(1.25, 1.6), hygroma=(.4, .5), focus=(1.4, 1.7), rim=(1.05, 1.3),
                  core=(.5, .75), blood=(1.35, 1.6), iron=(.1, .2), adenoma=(1., 1.35), white=(1.35, 1.6),
                  cap=(1.1, 1.3)),
    "t2": dict(infarct=(1.3, 1.5), gliosis=(1.3, 1.5), void=(.05, .08), faint=(1.15, 1.25), oedema=(1.4, 1.7),
               meningioma=(1., 1.3), subdural=(1.3, 1.6), hygroma=(1.6, 1.8), focus=(1.3, 1.6), rim=(1.05, 1.15),
               core=(1.4, 1.6), blood=(1.3, 1.6), iron=(.1, .2), adenoma=(1., 1.2), white=(1.4, 1.6), cap=(1.1, 1.3)),
    "t1": dict(infarct=(.8, .9), gliosis=(.75, .9), void=(.1, .3), faint=(.9, .95), oedema=(.77, .83),
               meningioma=(.9, 1.), subdural=(1.1, 1.5), hygroma=(.35, .45), focus=(.85, 1.), rim=(.9, 1.05),
               core=(.65, .75), blood=(1.3, 1.6), iron=(.2, .4), adenoma=(.9, 1.), white=(.85, .95), cap=(.9, 1.)),
}
