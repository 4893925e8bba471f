"""Winnow's dashboard: Streamlit pages over the views of a workspace."""
