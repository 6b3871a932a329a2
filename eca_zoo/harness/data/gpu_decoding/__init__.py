"""JPEG files that the GPU decodes: left encoded where they are read, decoded and resized on the device."""
