"""The garbage collector: objects whose owners are gone go too.

`graph` holds who owns whom, fed by watches of every resource; `decide` is the pure rule for one object; `controller` writes.
"""
