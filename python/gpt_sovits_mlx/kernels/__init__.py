"""Hand-written GPU kernels (CUDA), each with the plain MLX form that it equals."""
