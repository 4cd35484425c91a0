"""Planted answers to the exercises of chapter 07."""

import torch
import torch.nn.functional as F


def normalised(q, k, v, temperature):
    q, k = F.normalize(q, dim=-2), F.normalize(k, dim=-2)
    A = (q.mT @ k * temperature).softmax(-1)
    return v @ A.mT


def with_einsum(q, k, v, temperature):
    cosine = torch.einsum("bhni,bhnj->bhij", q, k)
    cosine = cosine / q.norm(dim=2)[..., :, None] / k.norm(dim=2)[..., None, :]
    A = torch.softmax(cosine * temperature, dim=-1)
    return torch.einsum("bhij,bhnj->bhni", A, v)


def over_channels(q, k, v, temperature):
    return v @ (F.normalize(q, dim=-1).mT @ F.normalize(k, dim=-1) * temperature).softmax(-1).mT


def between_tokens(q, k, v, temperature):
    return (F.normalize(q, dim=-2) @ F.normalize(k, dim=-2).mT * temperature).softmax(-1) @ v


def not_transposed(q, k, v, temperature):
    return v @ (F.normalize(q, dim=-2).mT @ F.normalize(k, dim=-2) * temperature).softmax(-1)


RIGHT = {
    "xca.attention": [normalised, with_einsum],
    "xca.duplicates": [{"softmax", "performer", "fastformer", "xca"}, ["XCA", "Softmax", "Fastformer", "Performer"]],
}
WRONG = {
    "xca.attention": [(over_channels, "over the channels of a token"), (between_tokens, "d x d"),
                      (not_transposed, "wrong way round"),
                      (lambda q, k, v, t: v @ (q.mT @ k * t).softmax(-1).mT, "no unit length"),
                      (lambda q, k, v, t: normalised(q, k, v, 1), "temperature is missing"),
                      (lambda q, k, v, t: normalised(q, k, v, 1 / t), "divides"),
                      (lambda q, k, v, t: v @ (F.normalize(q, dim=-2).mT @ F.normalize(k, dim=-2) * t).softmax(-2).mT,
                       "query channels")],
    "xca.duplicates": [({"softmax", "performer", "fastformer", "xca", "linformer"}, "built for one N"),
                       ({"softmax", "performer", "xca"}, "Fastformer: alpha"), ({"softmax"}, "Performer: both sums"),
                       ({"softmax", "performer", "fastformer", "xca", "window"}, "one size"),
                       ({"resnet"}, "no mechanism resnet")],
}
