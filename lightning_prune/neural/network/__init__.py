"""ResNet and ConvGRU that predict the spike counts of recorded cells, in plain torch."""
