"""A model without padding beside the padded one: of one family and head, on one batch, what differs and by how much?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import transformers as T

import fasttune

LONGEST = 80
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": LONGEST,
    "initializer_range": 0.2,  # at this width what trained weights do: attention that is not even, logits of about 1
}
AFTER_PAD = {**SIZES, "max_position_embeddings": LONGEST + 2}  # positions are counted from behind that of padding
DISTANCES = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "pad_token_id": 0, "type_vocab_size": 0}
MODERN = {  # windows of 4 tokens to each side in two of three layers
    "num_hidden_layers": 3,
    "local_attention": 8,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
FAMILIES = {
    "bert": T.BertConfig(**SIZES),
    "roberta": T.RobertaConfig(**AFTER_PAD, type_vocab_size=2),
    "xlm-roberta": T.XLMRobertaConfig(**AFTER_PAD),
    "camembert": T.CamembertConfig(**AFTER_PAD),
    "electra": T.ElectraConfig(**SIZES),
    "ernie": T.ErnieConfig(**SIZES),
    "distilbert": T.DistilBertConfig(
        vocab_size=200,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=LONGEST,
        initializer_range=0.2,
    ),
    "albert": T.AlbertConfig(**SIZES, embedding_size=16, num_hidden_groups=2),
    "mpnet": T.MPNetConfig(**AFTER_PAD),
    "deberta": T.DebertaConfig(**SIZES, **DISTANCES, max_relative_positions=12),
    "deberta-v2": T.DebertaV2Config(**SIZES, **DISTANCES, position_buckets=8, norm_rel_ebd="layer_norm"),
    "deberta-v3": T.DebertaV2Config(
        **SIZES, **DISTANCES, position_buckets=8, share_att_key=True, position_biased_input=False
    ),
    "modernbert": T.ModernBertConfig(**{**SIZES, **MODERN}, classifier_pooling="cls"),
    "modernbert-mean": T.ModernBertConfig(**{**SIZES, **MODERN}, classifier_pooling="mean"),
}
HEADS = {
    "classification": T.AutoModelForSequenceClassification,
    "question-answering": T.AutoModelForQuestionAnswering,
    "tokens": T.AutoModelForTokenClassification,
}
Batch = dict[str, torch.Tensor]


def make_pair(family: str, head: str) -> tuple[T.PreTrainedModel, T.PreTrainedModel]:
    """The padded model and its padding-free twin; configs are copies, since models share what they are given."""
    config = FAMILIES[family]
    torch.manual_seed(0)
    models = [HEADS[head].from_config(type(config).from_dict(config.to_dict())).eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    return models[0], fasttune.padding_free(models[1])


def make_batch(pad: int, lengths: Sequence[int], side: str = "right", vocabulary: int = 200) -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, vocabulary, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    return {"input_ids": ids.masked_fill(mask == 0, pad), "attention_mask": mask}


def as_pairs(batch: Batch) -> Batch:
    """Half of each sequence is its second text."""
    mask = batch["attention_mask"]
    is_second = mask.cumsum(1) > mask.sum(1, keepdim=True) / 2
    return {**batch, "token_type_ids": is_second.long() * mask}


def real_logits(model: T.PreTrainedModel, batch: Batch) -> torch.Tensor:
    """[B, C], or of every position [B, S, C] with 0 at padding; answers have two: begin and end."""
    output = model(**batch)
    is_span = "start_logits" in output
    logits = torch.stack([output.start_logits, output.end_logits], -1) if is_span else output.logits
    return logits * batch["attention_mask"][..., None] if logits.dim() == 3 else logits


def loss_of(logits: torch.Tensor, batch: Batch, head: str) -> torch.Tensor:
    """Cross entropy with labels drawn at random; of real positions alone, where the models compute it of all."""
    generator, device = torch.Generator().manual_seed(2), logits.device  # labels are the same on every device
    mask = batch["attention_mask"].bool()
    if head == "classification":
        labels = torch.randint(logits.shape[-1], logits.shape[:1], generator=generator)
        return F.cross_entropy(logits, labels.to(device))
    if head == "tokens":
        labels = torch.randint(logits.shape[-1], (int(mask.sum()),), generator=generator)
        return F.cross_entropy(logits[mask], labels.to(device))
    places = torch.multinomial(mask.float().cpu(), 2, replacement=True, generator=generator)  # [B, 2]
    return F.cross_entropy(logits.masked_fill(~mask[..., None], float("-inf")), places.to(device))


@dataclass(frozen=True)
class Differences:
    """The worst of each, absolute; `largest` gradient of the padded model, and parameters with one on one side only."""

    logits: float
    loss: float
    gradients: float
    largest: float
    one_sided: tuple[str, ...]


def differences(padded: T.PreTrainedModel, free: T.PreTrainedModel, batch: Batch, head: str) -> Differences:
    logits = [real_logits(model, batch) for model in (padded, free)]
    losses = [loss_of(value, batch, head) for value in logits]
    for model, loss in zip((padded, free), losses, strict=True):
        model.zero_grad()
        loss.backward()
    found = dict(free.named_parameters())
    pairs = {name: (one.grad, found[name].grad) for name, one in padded.named_parameters()}
    both = [pair for pair in pairs.values() if None not in pair]
    return Differences(
        logits=float((logits[0] - logits[1]).detach().abs().max()),
        loss=abs(losses[0].item() - losses[1].item()),
        gradients=max(float((one - other).abs().max()) for one, other in both),
        largest=max(float(one.abs().max()) for one, _ in both),
        one_sided=tuple(name for name, (one, other) in pairs.items() if (one is None) != (other is None)),
    )
