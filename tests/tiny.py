"""A recipe small enough to train in a second or two: a two-layer BERT from nothing on demo data."""

TINY = (
    "--recipe",
    "text_cls",
    "model.checkpoint=scratch:bert",
    "model.tokenizer=train",
    "model.config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64,"
    " vocab_size: 600, max_position_embeddings: 64}",
    "data.source=demo:reviews",
    "task.max_length=32",
    "optim.learning_rate=1e-3",
    "train.batch_size=16",
    "train.threads=1",
)
"""Arguments of `train`; add `train.max_steps=N`, `output_dir=...` and the like."""
