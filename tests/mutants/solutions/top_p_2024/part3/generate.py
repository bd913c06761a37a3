import torch
from cfg import get_config
from dataset import TextDataset
from gpt import GPT


@torch.inference_mode()
def generate(model, dataset, prompt, n_steps=20, do_sample=True, top_k=None, top_p=0.6, temperature=1.0, device="cpu"):
    idx = dataset.encode(prompt)[None].to(device)
    out = model.generate(idx, n_steps, temperature, do_sample, top_k, top_p)
    print(dataset.decode(out[0]))


if __name__ == "__main__":
    args = get_config()
    data = TextDataset(args, args.txt_file)
    config = GPT.get_default_config()
    config.model_type, config.vocab_size, config.block_size = args.model_type, data.vocab_size, args.block_size
    generate(GPT(config).eval(), data, "The")
