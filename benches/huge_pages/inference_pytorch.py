"""A worker of measure.py: inference with small models in PyTorch, many operators each."""

import sys

import torch
from torch import nn

torch.set_num_threads(1)
attention = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
convolution = nn.Sequential(
    nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(56, 10), nn.Softmax(-1)
).eval()
recurrent = nn.LSTM(8, 8).eval()
square = torch.ones(5, 5)

for _ in sys.stdin:
    with torch.no_grad():
        for _ in range(30):
            attention(torch.ones(1, 4, 32))
            convolution(torch.ones(1, 4, 16))
            recurrent(torch.ones(3, 1, 8))
            (square @ square.T).softmax(1).sum().item()
            torch.sort(square.flatten())[0].cumsum(0)
            torch.einsum("ij,jk", square, square)
            torch.stft(torch.ones(64), 16, return_complex=True, window=torch.ones(16))
            torch.linalg.solve(square + torch.eye(5), square)
    print("done", flush=True)
