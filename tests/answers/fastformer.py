"""Planted answers to the exercises of chapter 06."""

import torch


def pooled(x, w, what=None, dim=-2):
    alpha = torch.softmax((x * w[None, :, None]).sum(-1, keepdim=True) / x.shape[-1] ** 0.5, dim=dim)
    return (alpha * (x if what is None else what)).sum(-2, keepdim=True)


def paper(q, k, v, w_q, w_k, transform):
    p = k * pooled(q, w_q)
    return transform(pooled(p, w_k) * v) + q


def with_einsum(q, k, v, w_q, w_k, transform):
    d = q.shape[-1]
    alpha = torch.einsum("bhnd,hd->bhn", q, w_q).div(d**0.5).softmax(-1)
    q_bar = torch.einsum("bhn,bhnd->bhd", alpha, q)
    p = torch.einsum("bhnd,bhd->bhnd", k, q_bar)
    beta = torch.einsum("bhnd,hd->bhn", p, w_k).div(d**0.5).softmax(-1)
    k_bar = torch.einsum("bhn,bhnd->bhd", beta, p)
    return transform(torch.einsum("bhd,bhnd->bhnd", k_bar, v)) + q


def raw_keys(q, k, v, w_q, w_k, transform):
    return transform(pooled(k * pooled(q, w_q), w_k, what=k) * v) + q


def no_scale(q, k, v, w_q, w_k, transform):
    return paper(q, k, v, w_q * q.shape[-1] ** 0.5, w_k * q.shape[-1] ** 0.5, transform)


def one_set_of_weights(q, k, v, w_q, w_k, transform):
    p = k * pooled(q, w_q)
    return transform(pooled(q, w_q, what=p) * v) + q


def over_channels(q, k, v, w_q, w_k, transform):
    def pool(x, w):
        return ((x * w[:, None] / x.shape[-1] ** 0.5).softmax(-1) * x).sum(-2, keepdim=True)
    return transform(pool(k * pool(q, w_q), w_k) * v) + q


RIGHT = {
    "fastformer.attention": [paper, with_einsum],
    "fastformer.value_pattern": [lambda N: torch.eye(N), lambda N: [[i == j for j in range(N)] for i in range(N)]],
}
WRONG = {
    "fastformer.attention": [
        (raw_keys, "raw keys"),
        (lambda q, k, v, w_q, w_k, transform: paper(q, k, v, w_q, w_k, transform) - q, "not added"),
        (no_scale, "1/sqrt(d)"),
        (lambda q, k, v, w_q, w_k, transform: paper(q, k, v, w_q, w_k, lambda x: x), "transform is missing"),
        (lambda q, k, v, w_q, w_k, transform: transform(paper(q, k, v, w_q, w_k, lambda x: x)), "belongs after"),
        (one_set_of_weights, "beta comes from p"),
        (over_channels, "over the channels"),
    ],
    "fastformer.value_pattern": [(lambda N: torch.ones(N, N), "not every output"),
                                 (lambda N: torch.zeros(N, N), "must depend"),
                                 (lambda N: torch.ones(N, N).tril(), "causal"),
                                 (lambda N: torch.eye(N).flip(0), "elsewhere")],
}
