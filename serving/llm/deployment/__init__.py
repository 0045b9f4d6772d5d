"""The language model as a Ray Serve deployment of its own.

    HTTP, tokens, templates, grammars: replicas `api`  ──Order──>   replicas `llm`: an `EngineLoop` each
                                                       <──a step's Outputs──

`order` is what travels there, `client` the side that asks, `replica` the one that computes. Which replica a prompt goes
to is `prefix_routing` (plain Python) behind `router` (Ray's interface); how many there are is `autoscaling`. `options`
turns settings into Serve's. Ray is imported by `router` alone at module level.
"""
