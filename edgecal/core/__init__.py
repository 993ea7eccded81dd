"""What edgecal believes about TensorRT, Jetsons and calibration: values in, values out."""
