"""The models of a store as a file system of fsspec: `bentofs://NAME/VERSION/...`. fsspec finds it by an entry point."""
