"""The demo: a gradio page around one pipeline."""
