"""Planted answers to the exercises of chapter 10."""

from statistics import NormalDist

import numpy as np
from scipy.stats import norm


def by_bytes(train, test):
    known = {image.tobytes() for image in train["images"]}
    people = set(train["patients"])
    return [i for i, (image, person) in enumerate(zip(test["images"], test["patients"]))
            if person in people or image.tobytes() in known or image[:, ::-1].tobytes() in known]


def by_comparing(train, test):
    found = set()
    for i, image in enumerate(test["images"]):
        for other, person in zip(train["images"], train["patients"]):
            if test["patients"][i] == person or any((a == other).all() for a in (image, np.fliplr(image))):
                found.add(i)
    return found


def only_patients(train, test):
    return [i for i, person in enumerate(test["patients"]) if person in train["patients"]]


def only_pixels(train, test):
    known = {image.tobytes() for image in train["images"]}
    return [i for i, image in enumerate(test["images"]) if image.tobytes() in known]


def no_mirrors(train, test):
    return only_patients(train, test) + only_pixels(train, test)


def by_prefix(train, test):
    return set(by_bytes(train, test)) | {i for i, p in enumerate(test["patients"])
                                         if any(p.startswith(q) for q in train["patients"])}


def z(sd, runs, alpha, power):
    return (NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)) * sd / runs**0.5


RIGHT = {
    "training.leaks": [by_bytes, by_comparing],
    "training.detectable": [z, lambda sd, runs, alpha, power:
                            sd / np.sqrt(runs) * (norm.isf(alpha / 2) - norm.ppf(1 - power))],
}
WRONG = {
    "training.leaks": [(only_patients, "exactly the pixels"), (only_pixels, "share a patient"),
                       (no_mirrors, "mirrored left to right"), (by_prefix, "not begin the same"),
                       (lambda train, test: range(9), "do not leak"), (lambda train, test: [11], "no position")],
    "training.detectable": [
        (lambda sd, runs, alpha, power: norm.isf(alpha / 2) * sd / runs**0.5, "power is missing"),
        (lambda sd, runs, alpha, power: (norm.isf(alpha) + norm.ppf(power)) * sd / runs**0.5, "two tails"),
        (lambda sd, runs, alpha, power: z(sd, 1, alpha, power), "not sd"),
        (lambda sd, runs, alpha, power: z(sd, runs, alpha, power) * 2**0.5, "two independent groups"),
        (lambda sd, runs, alpha, power: z(sd, runs**2, alpha, power), "not sd / runs")],
}
