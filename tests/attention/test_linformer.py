"""Linformer equals its equation, and softmax attention when its projections are the identity."""

import pytest
import torch
from linformer.linformer import LinformerSelfAttention
from parts import DIM, build, tokens

GRID, N = (5, 7), 35


def test_identity_projections_are_softmax_attention():
    linformer, softmax = build("linformer", grid=GRID, r=N), build("softmax", grid=GRID)
    with torch.no_grad():
        linformer.E.copy_(torch.eye(N))
        linformer.F.copy_(torch.eye(N))
    linformer.load_state_dict(softmax.state_dict(), strict=False)
    torch.testing.assert_close(linformer(tokens(num_tokens=N)), softmax(tokens(num_tokens=N)), rtol=0, atol=1e-12)


def test_equals_the_equation_with_its_own_projections_of_keys_and_values():
    linformer = build("linformer", grid=GRID)
    q, k, v = linformer.heads(tokens(num_tokens=N))
    mixed = linformer.mix(q, k, v)
    for b in range(2):
        for h in range(3):
            K, V = linformer.E @ k[b, h], linformer.F @ v[b, h]
            expected = (q[b, h] @ K.T / 2).softmax(-1) @ V
            torch.testing.assert_close(mixed[b, h], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("r", [6, N])
def test_the_small_product_first_is_the_equation_and_costs_less(r, qkv_bias):
    linformer, x = build("linformer", grid=GRID, r=r, qkv_bias=qkv_bias), tokens(num_tokens=N)
    if qkv_bias:
        with torch.no_grad():
            linformer.qkv.bias.uniform_(-1, 1)
    readable = linformer.proj(linformer.merge_heads(linformer.mix(*linformer.heads(x))))
    torch.testing.assert_close(linformer(x), readable, rtol=0, atol=1e-12)
    assert linformer.projection_macs(N) == (2 * N + 2 * r) * DIM**2


def test_the_study_shares_one_projection_with_bias():
    linformer = build("linformer", grid=GRID, setting="seed", r=None)
    assert linformer.r == N // 8 == 4
    assert sum(p.numel() for p in linformer.parameters()) == 4 * DIM**2 + 4 * DIM + 4 * N + 4
    with torch.no_grad():
        linformer.project.bias.uniform_(-1, 1)
    P, b = linformer.project.weight, linformer.project.bias[:, None]
    q, k, v = linformer.heads(tokens(num_tokens=N))
    expected = (q[1, 2] @ (P @ k[1, 2] + b).T / 2).softmax(-1) @ (P @ v[1, 2] + b)
    torch.testing.assert_close(linformer.mix(q, k, v)[1, 2], expected, rtol=0, atol=1e-12)


def test_default_lengths():
    assert build("linformer", grid=(16, 16), r=None).r == 128
    assert build("linformer", grid=GRID, r=None).r == 35
    assert build("linformer", grid=(1, 3), setting="seed", r=None).r == 1


def test_another_number_of_tokens_is_refused():
    for setting in ("faithful", "seed"):
        with pytest.raises(ValueError, match=r"built for a \(5, 7\) grid \(35 tokens\) but received 34; build"):
            build("linformer", grid=GRID, setting=setting)(tokens(num_tokens=34))


@pytest.mark.parametrize("r, message", [
    (36, "r is 36 but the .* has only 35 tokens; give"), (0, "r is 0; wanted a whole number"), (2.5, "r is 2.5"),
])
def test_an_impossible_length_is_refused(r, message):
    with pytest.raises(ValueError, match=message):
        build("linformer", grid=GRID, r=r)


def test_equals_the_package_linformer_with_copied_weights():
    peer = LinformerSelfAttention(DIM, seq_len=N, k=5, heads=3).double()
    ours = build("linformer", grid=GRID, qkv_bias=False)
    assert ours.r == peer.k == 5
    with torch.no_grad():
        ours.qkv.weight.copy_(torch.cat([peer.to_q.weight, peer.to_k.weight, peer.to_v.weight]))
        ours.E.copy_(peer.proj_k.T)
        ours.F.copy_(peer.proj_v.T)
    ours.proj.load_state_dict(peer.to_out.state_dict())
    torch.testing.assert_close(ours(tokens(num_tokens=N)), peer(tokens(num_tokens=N)), rtol=0, atol=1e-12)
