"""Speed, memory and studies, measured side by side by one command each."""
