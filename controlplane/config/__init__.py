"""The settings, as people see and change them: one key at a time, checked, and the rest of the file as it was."""
