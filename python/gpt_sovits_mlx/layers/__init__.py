"""The building blocks that every model uses: (batch, time, channels) in, (batch, time, channels) out."""

from ..runtime import require_mlx

# Every model imports this package before it computes: the one place where MLX is made ready.
require_mlx()
