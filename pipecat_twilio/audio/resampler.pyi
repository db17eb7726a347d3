from typing import final

from typing_extensions import Buffer

vector_path: str

@final
class SincResampler:
    in_rate: int
    out_rate: int
    clear_after_secs: float | None
    def __new__(
        cls,
        in_rate: int,
        out_rate: int,
        *,
        clear_after_secs: float | None = 0.2,
        num_zeros: int = 32,
        rolloff: float = 0.9125,
        beta: float = 8.5,
    ) -> SincResampler: ...
    @property
    def delay_secs(self) -> float: ...
    def process(self, pcm: Buffer, now: float | None = None) -> bytes: ...
    def flush(self) -> bytes: ...
    def reset(self) -> None: ...
