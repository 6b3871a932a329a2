"""Why a network cannot be timed, in one line with a remedy."""

from eca_zoo.errors import EcaZooError, one_line
from eca_zoo.harness.machine.device_errors import is_out_of_memory
from eca_zoo.harness.speed.settings import ThroughputSettings

_TOO_SMALL = ('too small', "can't be greater than actual input size", 'spatial size')


def reason(error: Exception, settings: ThroughputSettings, batch_size: int) -> str:
    """What went wrong and what to do about it.

    Args:
        error: that ended the measurement.
        settings: of the measurement.
        batch_size: that was tried last; 0 while the network was built.
    """
    text = one_line(error)
    if isinstance(error, EcaZooError):
        return text
    lower = text.lower()
    if 'more than 1 value per channel' in lower:
        return (
            f'a batch norm has one value a channel to train on ({text}); give a batch size of more than {batch_size}, '
            'or a larger image size'
        )
    if is_out_of_memory(error):
        return (
            f'batch size {max(batch_size, 1)} does not fit into the memory of {settings.device} ({text}); give a '
            'smaller image size, or another device'
        )
    if 'not implemented for' in lower:
        return f'{settings.precision} is not implemented on {settings.device} for it ({text}); use another precision'
    if any(sign in lower for sign in _TOO_SMALL):
        return f'the images are too small for it ({text}); give a larger image size'
    if settings.compile:
        return f'{text} (with compile {settings.compile}; see whether it runs without)'
    return text
