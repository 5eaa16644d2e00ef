"""`fasttune export`: ONNX and OpenVINO, each compared with the weights on real rows and timed on this CPU."""
