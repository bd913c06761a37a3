import argparse


def get_config():
    parser = argparse.ArgumentParser()
    parser.add_argument("--txt_file", type=str, default="assets/book.txt")
    parser.add_argument("--model_type", type=str, default="gpt-mini")
    parser.add_argument("--block_size", type=int, default=128)
    parser.add_argument("--use_flash_attn", action="store_true")
    parser.add_argument("--abs_emb", action="store_true")
    parser.add_argument("--precision", type=str, default="16-mixed")
    return parser.parse_args()
