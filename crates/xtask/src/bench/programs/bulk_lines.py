"""The core loop of a shipper in Python: lines of JSON, helpers.streaming_bulk, Elasticsearch."""
import json
import sys

from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk

url, path, index = sys.argv[1:]


def actions():
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield {"_index": index, "_source": json.loads(line)}


for _ in streaming_bulk(Elasticsearch([url]), actions(), chunk_size=500):
    pass
