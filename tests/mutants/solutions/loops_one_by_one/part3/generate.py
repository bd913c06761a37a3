import torch
from gpt import GPT
from transformers import GPT2Tokenizer


@torch.no_grad()
def generate(
    model,
    model_type,
    prompt="",
    num_samples=10,
    n_steps=20,
    do_sample=True,
    top_k=50,
    temperature=1.0,
    device="cpu",
    verbose=True,
):
    """Prints continuations."""
    tokenizer = GPT2Tokenizer.from_pretrained(model_type)
    if prompt == "":
        prompt = "<|endoftext|>"
    x = tokenizer([prompt], return_tensors="pt")["input_ids"].to(device).expand(num_samples, -1)
    y = model.generate(x, max_new_tokens=n_steps, do_sample=do_sample, top_k=top_k, temperature=temperature)
    for row in y:
        print(tokenizer.decode(row))


if __name__ == "__main__":
    generate(GPT.from_pretrained("gpt2").eval(), "gpt2", "Hello")
