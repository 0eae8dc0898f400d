from namespaces import greeter, outside

__all__ = ["greeter", "outside"]
