"""A page of Streamlit, which talks to its browser by a WebSocket."""

import streamlit as st

st.title("version one")
name = st.text_input("Who are you?")
if name:
    st.write("Hello", name)
