"""The Rust library `tokenizers`, for comparison only. tokenizer.mjs talks to it in lines of JSON:

    {"texts": [...]}            keeps them
    {"digests": true}           answers the SHA-256 of each text's ids (int32, little-endian), without special tokens
    {"form": name, "from": a, "to": b}   encodes those texts; answers tokens and the CPU seconds of this process

Each form has a tokenizer of its own, so that none finds the cache that another has filled.
"""
import argparse
import array
import hashlib
import json
import os
import sys
import time

os.environ['TOKENIZERS_PARALLELISM'] = 'false'
os.environ['RAYON_NUM_THREADS'] = '1'
from tokenizers import Tokenizer  # noqa: E402: reads the environment


def one_by_one(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def batch_fast(tokenizer, texts):
    return tokenizer.encode_batch_fast(texts, add_special_tokens=False)


FORMS = {'encode': one_by_one, 'encode_batch_fast': batch_fast}


def digest(encoding):
    return hashlib.sha256(array.array('i', encoding.ids).tobytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('tokenizer', help='tokenizer.json')
    path = parser.parse_args().tokenizer
    tokenizers = {name: Tokenizer.from_file(path) for name in FORMS}
    texts = []
    for request in map(json.loads, sys.stdin):
        if 'texts' in request:
            texts = request['texts']
            answer = {'forms': list(FORMS)}
        elif 'digests' in request:
            fresh = Tokenizer.from_file(path)
            answer = {'digests': [digest(one_by_one(fresh, [text])[0]) for text in texts]}
        else:
            form, some = request['form'], texts[request['from'] : request['to']]
            begin = time.process_time()
            encodings = FORMS[form](tokenizers[form], some)
            seconds = time.process_time() - begin
            answer = {'tokens': sum(len(e.ids) for e in encodings), 'seconds': seconds}
        print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    main()
