"""The language-model engine: a scheduler, a paged key-value cache, a model on `rolecall.kernels`, a sampler.

Read in this order: `request`, `sequence`, `block_pool`, `batch`, `scheduler`, `model_runner`, `sampler`, `engine`,
`offline`.
Below its HTTP files the package imports torch, numpy, transformers, safetensors and `rolecall.kernels` alone, and Ray
in `parallel`, which shares a model among actors.
"""
