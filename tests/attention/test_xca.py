"""XCA equals timm's, with and without the local patch interaction."""

from functools import partial

import timm.models.xcit as xcit
import torch
from parts import DIM, GRID, HEADS, N, build, tokens
from torch import nn

from medbench.backbone import Block


def test_equals_timm_with_its_weights():
    theirs = xcit.XCA(DIM, HEADS, qkv_bias=True).double().eval()
    torch.nn.init.uniform_(theirs.temperature, 0.5, 3)
    ours = build("xca", grid=GRID)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert (ours(tokens()) - theirs(tokens())).abs().max() <= 1e-15


def test_a_block_with_local_patch_interaction_equals_timms():
    theirs = xcit.XCABlock(DIM, HEADS, qkv_bias=True, eta=1.0,
                            norm_layer=partial(nn.LayerNorm, eps=1e-6)).double().train()
    ours = Block(DIM, build("xca", lpi=True), mlp_ratio=4.0, proj_drop=0.0, drop_path=0.0).double().train()
    names = {"norm3.": "attn.local.norm.", "local_mp.": "attn.local."}
    state = {}
    for key, value in theirs.state_dict().items():
        for old, new in names.items():
            key = new + key.removeprefix(old) if key.startswith(old) else key
        if not key.startswith("gamma"):
            state[key] = value
    ours.load_state_dict(state, strict=True)
    torch.testing.assert_close(ours(tokens(batch=5)), theirs(tokens(batch=5), *GRID), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.eval()(tokens()), theirs.eval()(tokens(), *GRID), rtol=0, atol=1e-12)


def test_scaling_a_channel_of_the_queries_changes_nothing():
    mechanism = build("xca")
    q, k, v = mechanism.heads(tokens())
    scaled = q.clone()
    scaled[..., 2] *= 17
    torch.testing.assert_close(mechanism.mix(scaled, k, v), mechanism.mix(q, k, v), rtol=0, atol=1e-12)


def test_the_study_divides_by_the_root_of_the_number_of_tokens():
    mechanism = build("xca", setting="seed")
    assert "temperature" not in mechanism.state_dict()
    q, k, v = mechanism.heads(tokens())
    A = torch.einsum("ni,nj->ij", q[1, 2], k[1, 2]).div(N**0.5).softmax(-1)
    expected = torch.einsum("ij,nj->ni", A, v[1, 2])
    torch.testing.assert_close(mechanism.mix(q, k, v)[1, 2], expected, rtol=0, atol=1e-12)


def test_local_interaction_is_counted():
    assert build("xca", lpi=True).mixing_macs(N) - build("xca").mixing_macs(N) == 2 * 9 * N * DIM
