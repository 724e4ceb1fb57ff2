"""Extensions of the paper: pair losses, graph sampling, distillation, TFusion, IBN, ONNX."""
