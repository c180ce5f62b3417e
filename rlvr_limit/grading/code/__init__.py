"""Programs as answers: found in a response, run in the sandbox, judged by their benchmark's own rules."""
