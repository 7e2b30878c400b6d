"""The Hugging Face hub: names of repositories, downloads at a revision, and uploads.

Everything goes through the client `huggingface_hub`, which reads the endpoint from HF_ENDPOINT, the
token from HF_TOKEN or `hf auth login`, and keeps what it downloads below HF_HOME.
"""
