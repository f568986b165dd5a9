"""Right solutions of chapter 7's exercises, in other styles than the library's (see test_proofs.py)."""

# %% 7 freeze
from fnmatch import fnmatchcase as glob


class _Deaf:
    """Stands in for `module.train`, and leaves the module in eval mode; it can be pickled."""

    def __init__(self, module):
        self.module = module

    def __call__(self, mode=True):
        return _stay_in_eval(self.module, mode)


def _stay_in_eval(module, mode=True):
    return module


def _matches_pattern(name, pattern):
    pieces = name.split(".")
    starts = [".".join(pieces[:k]) for k in range(1, len(pieces) + 1)]
    return glob(name, pattern) or any(glob(start, pattern) for start in starts)


def _switch(model, patterns, trained):
    found = dict.fromkeys(patterns, False)
    for name, parameter in model.named_parameters():
        for pattern in patterns:
            if _matches_pattern(name, pattern):
                found[pattern] = True
                parameter.requires_grad = trained
    return [pattern for pattern in patterns if not found[pattern]]


def freeze(model, *patterns):
    typos = _switch(model, patterns, False)
    if typos:
        parts = " ".join(part[0] for part in trainable_parts(model))
        raise ValueError(f"nothing matches {typos[0]!r}; there are: {parts}")
    _set_frozen_modes(model)


def unfreeze(model, *patterns):
    _switch(model, patterns or ("*",), True)
    _set_frozen_modes(model)


def _set_frozen_modes(model):
    mode = model.training
    for module in model.modules():
        trained = [p.requires_grad for p in module.parameters()]
        module.__dict__.pop("train", None)
        if trained and True not in trained:
            module.eval()
            module.train = _Deaf(module)
    model.train(mode)


# %% 7 layers
AFTER_THE_BLOCKS = ("norm", "head", "fc", "classifier")


def _block_number(pieces):
    """The number in "layer3", or after "blocks" or "features"; None outside of blocks."""
    for piece, following in zip(pieces, pieces[1:]):
        if piece[:5] == "layer" and piece[5:].isdigit():
            return int(piece[5:])
        if piece in ("blocks", "features") and following.isdigit():
            return int(following)


def _depth(name):
    pieces = name.split(".")
    in_backbone = "backbone" in pieces[:-1]
    number = _block_number(pieces)
    if pieces[0] != "encoders" and not in_backbone:
        return (2, 1, number) if number is not None else (2, 2, 0)
    part = 0 if in_backbone else 1
    if number is not None:
        return part, 1, number
    after = in_backbone and pieces[pieces.index("backbone") + 1] in AFTER_THE_BLOCKS
    return part, 2 if after else 0, 0


def layers(model):
    names = [name for name, _ in model.named_parameters()]
    names.sort(key=_depth)
    found = []
    before = None
    for name in names:
        if _depth(name) != before:
            found.append([])
        found[-1].append(name)
        before = _depth(name)
    return found


# %% 7 parameter_groups
def parameter_groups(model, weight_decay, layer_decay=1.0):
    named = dict(model.named_parameters())
    by_layer = layers(model)
    groups = []
    for number, names in enumerate(by_layer, start=1):
        factor = layer_decay ** (len(by_layer) - number)
        vectors, matrices = [], []
        for name in names:
            sides = [side for side in named[name].shape if side != 1]
            (matrices if len(sides) > 1 else vectors).append(named[name])
        for parameters, decay in ((vectors, 0.0), (matrices, weight_decay)):
            if parameters:
                groups.append({"params": parameters, "weight_decay": decay, "factor": factor})
    return groups


# %% 7 gradual_unfreezing
def gradual_unfreezing(model, frozen, fraction):
    frozen = set(frozen)
    waiting = [frozen.intersection(names) for names in layers(model)]
    waiting = [names for names in waiting if names]
    number = min(math.floor(fraction * len(waiting)), len(waiting))
    changed = False
    for names in waiting[len(waiting) - number :]:
        still = [name for name in names if not model.get_parameter(name).requires_grad]
        if still:
            unfreeze(model, *still)
            changed = True
    return changed


# %% 7 LoRA.forward
class LoRA(nn.Module):
    def matrix(self):
        return torch.einsum("or,ri->oi", self.b, self.a).mul(self.scale)

    def forward(self, x, rows=slice(None)):
        if self.training:
            x = F.dropout(x, p=self.dropout)
        narrow = x @ self.a.transpose(0, 1)
        return torch.einsum("...r,or->...o", narrow, self.b[rows]) * self.scale


# %% 7 LoRALinear.forward
class LoRALinear(nn.Linear):
    def forward(self, x):
        change = self.lora["weight"]
        return F.linear(x, self.weight, self.bias) + change(x)


class LoRAAttention(MultiHeadAttention):
    def in_proj(self, x, rows):
        plain = MultiHeadAttention.in_proj(self, x, rows)
        return plain.add(self.lora["in_proj_weight"](x, rows=rows))


class LoRALSTM(LSTM):
    def weight(self, name):
        matrix = self.get_parameter(name)
        return torch.add(matrix, self.lora[name].matrix())


# %% 7 merge_lora
def merge_lora(model):
    with torch.no_grad():
        for layer in _lora_layers(model):
            for name in layer.lora:
                matrix = layer.get_parameter(name)
                matrix.copy_(matrix + layer.lora[name].matrix())
    remove_lora(model)


def remove_lora(model):
    for layer in _lora_layers(model):
        plain = {lora: plain for plain, lora in _LORA_CLASS.items()}[type(layer)]
        layer.__class__ = plain
        layer._modules.pop("lora")


# %% 7 load_matching
def load_matching(model, state):
    own = model.state_dict()
    names = set(own) & set(state)
    fits = {name for name in names if own[name].size() == state[name].size()}
    with torch.no_grad():
        for name in fits:
            own[name].copy_(state[name])
    others = []
    for name in own:
        if name in names - fits:
            theirs, mine = tuple(state[name].size()), tuple(own[name].size())
            others.append("{} {}, here {}".format(name, theirs, mine))
    return IncompatibleKeys(
        [name for name in own if name not in names],
        [name for name in state if name not in names],
        others,
    )


# %% 7 transfer_embedding_rows
def transfer_embedding_rows(old, old_words, new, new_words):
    number = dict(zip(old_words, range(len(old_words))))
    result = new.detach().clone()
    with torch.no_grad():
        for i, word in enumerate(new_words):
            if word in number:
                result[i] = old[number[word]].to(result.dtype)
    return result
