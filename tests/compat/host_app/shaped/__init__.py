"""A host in the shape of ComfyUI: V1 and V3 nodes, models that stay in it, services that packs call, a loop per prompt.

Written against pyisolate's names alone, so that it runs on pyisolate and on Airlock with no line changed.
"""
