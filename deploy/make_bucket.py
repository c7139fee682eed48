"""Make the bucket of the artifacts, unless it is there: `python make_bucket.py NAME`."""

from __future__ import annotations

import os
import sys
import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

NUM_TRIES = 30


def main() -> None:
    name = sys.argv[1]
    client = boto3.client("s3", endpoint_url=os.environ["SNUGNET_S3_ENDPOINT_URL"])
    for tried in range(1, NUM_TRIES + 1):
        try:
            client.create_bucket(Bucket=name)
        except client.exceptions.BucketAlreadyOwnedByYou:
            break
        except (BotoCoreError, ClientError):
            if tried == NUM_TRIES:
                raise
            time.sleep(1)  # the store has only just been started
        else:
            break
    sys.stdout.write(f"the bucket {name} is there\n")


if __name__ == "__main__":
    main()
