import numpy as np


class TensorBoardLogger:
    """Writes means over a window of steps."""

    def __init__(self, summary_writer, avg_window=50, name=None):
        self.summary_writer = summary_writer
        self.avg_window = avg_window
        self.name = "" if name is None else name + "/"
        self.global_step = 0
        self.metric_dict = {}

    def add_values(self, log_dict):
        self.global_step += 1
        for key, val in log_dict.items():
            values = self.metric_dict.setdefault(key, [])
            values.append(val.detach().cpu())
            if len(values) >= self.avg_window:
                self.summary_writer.add_scalar(self.name + key, np.mean(values), global_step=self.global_step)
                self.metric_dict[key] = []
