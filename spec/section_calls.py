"""The calls that sections may hold: optimisers, schedules, clipping, exploration, augmentation.

Names and defaults are PyTorch's where it has the thing.
"""

from __future__ import annotations

from .calls import Family, Parameter, Rule
from .kinds import Kind, choice, flag, list_of, number, whole

_POSITIVE = number(0, above=True)
_NOT_NEGATIVE = number(0)
_FRACTION = number(0, 1, below=True)
_UNIT = number(0, 1)
_COUNT = whole(1)
_RANGE: Kind = list_of(number(0, 1, below=True), 2, 2)


def _lr(default: float) -> Parameter:
    return Parameter("lr", _POSITIVE, default)


_WEIGHT_DECAY = Parameter("weight_decay", _NOT_NEGATIVE, 0.0)
_BETAS: Kind = list_of(_FRACTION, 2, 2)


def _adam(weight_decay: float) -> tuple[Parameter, ...]:
    return (
        _lr(1e-3),
        Parameter("betas", _BETAS, (0.9, 0.999)),
        Parameter("eps", _POSITIVE, 1e-8),
        Parameter("weight_decay", _NOT_NEGATIVE, weight_decay),
        Parameter("amsgrad", flag(), False),
    )


OPTIMIZERS = Family(
    "optimizer",
    "sgd(lr=0.1, momentum=0.9)",
    (
        Rule(
            "sgd",
            (
                _lr(1e-3),
                Parameter("momentum", _FRACTION, 0.0),
                Parameter("dampening", _FRACTION, 0.0),
                Parameter("nesterov", flag(), False),
                _WEIGHT_DECAY,
            ),
            "stochastic gradient descent",
        ),
        Rule(
            "adagrad",
            (
                _lr(1e-2),
                Parameter("lr_decay", _NOT_NEGATIVE, 0.0),
                Parameter("eps", _POSITIVE, 1e-10),
                _WEIGHT_DECAY,
                Parameter("initial", _NOT_NEGATIVE, 0.0),
            ),
            "AdaGrad (Duchi et al. 2011)",
        ),
        Rule(
            "adadelta",
            (
                _lr(1.0),
                Parameter("rho", _FRACTION, 0.9),
                Parameter("eps", _POSITIVE, 1e-6),
                _WEIGHT_DECAY,
            ),
            "AdaDelta (Zeiler 2012)",
        ),
        Rule(
            "rmsprop",
            (
                _lr(1e-2),
                Parameter("alpha", _FRACTION, 0.99),
                Parameter("eps", _POSITIVE, 1e-8),
                Parameter("momentum", _FRACTION, 0.0),
                Parameter("centered", flag(), False),
                _WEIGHT_DECAY,
            ),
            "RMSProp (Tieleman and Hinton 2012)",
        ),
        Rule("adam", _adam(0.0), "Adam (Kingma and Ba 2015)"),
        Rule("adamw", _adam(1e-2), "AdamW (Loshchilov and Hutter 2019)"),
    ),
)

SCHEDULES = Family(
    "schedule",
    "warmup(5) >> cosine(85)",
    (
        Rule(
            "constant",
            (Parameter("factor", _POSITIVE, 1.0), Parameter("epochs", _POSITIVE, None)),
            "the base rate times a factor; without end unless `epochs` is given",
        ),
        Rule(
            "step",
            (Parameter("size", _COUNT), Parameter("gamma", _POSITIVE, 0.1)),
            "times gamma every `size`",
        ),
        Rule(
            "multistep",
            (Parameter("at", list_of(_COUNT, 1)), Parameter("gamma", _POSITIVE, 0.1)),
            "times gamma at each of the given times",
        ),
        Rule(
            "cosine",
            (Parameter("epochs", _POSITIVE), Parameter("min", _NOT_NEGATIVE, 0.0)),
            "half a cosine down to `min`",
        ),
        Rule(
            "cosine_restarts",
            (
                Parameter("first", _POSITIVE),
                Parameter("factor", number(1), 1.0),
                Parameter("min", _NOT_NEGATIVE, 0.0),
            ),
            "half cosines in a row, each `factor` times as long as the one before (Loshchilov and "
            "Hutter 2017)",
        ),
        Rule(
            "warmup",
            (Parameter("epochs", _POSITIVE), Parameter("start", _NOT_NEGATIVE, 0.0)),
            "a straight line from `start` times the rate up to it",
        ),
        Rule(
            "cyclic",
            (
                Parameter("low", _NOT_NEGATIVE),
                Parameter("high", _POSITIVE),
                Parameter("up", _POSITIVE),
                Parameter("down", _POSITIVE, None),
                Parameter("mode", choice("triangular", "triangular2", "exp_range"), "triangular"),
                Parameter("gamma", _POSITIVE, 1.0),
                Parameter("momentum", _RANGE, None),
            ),
            "up and down again; `down` is as long as `up` unless given (Smith 2017); `triangular2` "
            "halves each cycle, `exp_range` shrinks it by gamma each step; a momentum range "
            "[low, high] goes the other way",
        ),
        Rule(
            "one_cycle",
            (
                Parameter("epochs", _POSITIVE),
                Parameter("max", _POSITIVE),
                Parameter("rise", number(0, 1, above=True, below=True), 0.3),
                Parameter("div", _POSITIVE, 25.0),
                Parameter("final_div", _POSITIVE, 1e4),
                Parameter("shape", choice("cosine", "linear"), "cosine"),
                Parameter("phases", whole(2, 3), 2),
                Parameter("momentum", _RANGE, None),
            ),
            "super-convergence (Smith and Topin 2018): from max/div up to max, then down to "
            "max/div/final_div; a momentum range [low, high] goes the other way",
        ),
        Rule(
            "linear_scaling",
            (Parameter("base_batch", _COUNT, 256),),
            "the rate grows with the batch size (Goyal et al. 2017)",
        ),
        Rule("exponential", (Parameter("gamma", _POSITIVE),), "times gamma each epoch"),
        Rule(
            "poly",
            (
                Parameter("epochs", _POSITIVE),
                Parameter("power", _POSITIVE, 1.0),
                Parameter("min", _NOT_NEGATIVE, 0.0),
            ),
            "(1 - t / epochs) to a power",
        ),
    ),
)

CLIPS = Family(
    "clipping rule",
    "norm(1.0)",
    (
        Rule("norm", (Parameter("limit", _POSITIVE),), "scale gradients to a global norm"),
        Rule("value", (Parameter("limit", _POSITIVE),), "cut each gradient to [-limit, limit]"),
        Rule("weights", (Parameter("limit", _POSITIVE),), "cut each weight after the step (WGAN)"),
    ),
)

EXPLORATION = Family(
    "exploration rule",
    "epsilon_greedy(0.1)",
    (
        Rule(
            "epsilon_greedy",
            (
                Parameter("epsilon", _UNIT, 0.1),
                Parameter("final", _UNIT, None),
                Parameter("episodes", _COUNT, None),
            ),
            "random with probability epsilon, falling to `final` over `episodes` if given",
        ),
        Rule("softmax", (Parameter("temperature", _POSITIVE, 1.0),), "by exp(Q / temperature)"),
        Rule("greedy", (), "always the best known action"),
    ),
)

AUGMENTATIONS = Family(
    "augmentation",
    "hflip >> crop(32, pad=4)",
    (
        Rule("mean_image", (), "subtract the training set's mean image"),
        Rule("zscore", (), "zero mean and unit variance by channel"),
        Rule("whiten", (Parameter("eps", _POSITIVE, 1e-5),), "PCA whitening"),
        Rule("hflip", (Parameter("p", _UNIT, 0.5),), "mirror left and right"),
        Rule("vflip", (Parameter("p", _UNIT, 0.5),), "mirror up and down"),
        Rule(
            "crop",
            (Parameter("size", _COUNT), Parameter("pad", whole(0), 0)),
            "a random square, after padding",
        ),
        Rule(
            "scale",
            (Parameter("low", _POSITIVE), Parameter("high", _POSITIVE)),
            "enlarge about the centre by a random factor",
        ),
        Rule("rotate", (Parameter("degrees", number(0, 180)),), "turn by up to +-degrees"),
        Rule("colour_noise", (Parameter("sd", _NOT_NEGATIVE, 0.1),), "noise along PCA of RGB"),
        Rule(
            "colour_jitter",
            (
                Parameter("brightness", _UNIT, 0.4),
                Parameter("contrast", _UNIT, 0.4),
                Parameter("saturation", _UNIT, 0.4),
            ),
            "brightness, contrast and saturation by factors of 1 +- each",
        ),
        Rule("cutout", (Parameter("size", _COUNT),), "zeros in a random square (DeVries 2017)"),
        Rule("mixup", (Parameter("alpha", _POSITIVE, 0.2),), "mix pairs of examples"),
    ),
)
