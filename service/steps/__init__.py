"""Steps of jobs: the protocol that loses and repeats none, and what wakes workers."""
