"""The models that can be trained and explained, by the name `--model-type` takes."""

MODELS = {"rnn": "nlproar.model.bilstm_attention:BiLSTMAttention"}
