"""Search jobs and measuring jobs: what is asked, their states, what happened to them."""
