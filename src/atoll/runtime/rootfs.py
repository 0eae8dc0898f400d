"""The container's file system, made by its own init in its own mount namespace.

Every target is opened inside the root by openat2 and mounted through that descriptor, so that no symlink of the image's leads a mount, a
device or a mask elsewhere. On return of `enter` the old root is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any

from atoll.errors import InvalidInput, SystemFailure
from atoll.kernel import inroot, mounts
from atoll.kernel.cgroups import Cgroup
from atoll.runtime import borrowed, mount_options
from atoll.runtime.constants import MOUNT_NAMESPACE, SUBPATH

_MAPPED = frozenset(("uidMappings", "gidMappings", "idmap", "ridmap"))  # fields and options of a bind
_MOUNT_DATA_MAX = 4000  # bytes; mount(2) takes one page
_DEFAULT_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_DEVICE_LINKS = (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"))


def mount_root(bundle: str, path: str, overlay: Mapping[str, Any] | None, propagation: str) -> int:
    """Mount the root file system, seen by this mount namespace alone, and give an O_PATH descriptor of it.

    `path` is the spec's, relative to the bundle or not. An overlay covers its own upper directory: none need be made for it, and what
    else lies in the bundle can still be bound into the container.
    """
    kind, recursive = mount_options.propagation(propagation)
    if kind == mounts.MS_SHARED:
        # What is bound shall stay a peer of the host's mounts; the host shall only not see the root itself.
        mounts.propagate(mounts.mount_point(bundle), mounts.MS_PRIVATE, recursive=False)
    else:  # what is unbindable cannot be a layer either: that comes at the end
        mounts.propagate("/", mounts.MS_SLAVE if kind == mounts.MS_UNBINDABLE else kind, recursive=recursive)
    if overlay is not None:
        _mount_overlay(overlay["upper"], overlay)
        return os.open(overlay["upper"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    place = os.path.join(bundle, path)
    tree = mounts.clone_tree(place, recursive=True)
    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mounts.attach(tree, target, place)
    finally:
        os.close(target)
    return tree


def _mount_overlay(target: str, overlay: Mapping[str, Any]) -> None:
    """With `volatile`: an unmount does not sync the file system below (139 ms seen), and after a power cut the container is gone anyway."""
    lower, upper, work = overlay["lower"], overlay["upper"], overlay["work"]
    # Left by a volatile mount; the kernel refuses to use the directory again until it is removed.
    mark = os.path.join(work, "work", "incompat", "volatile")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(os.path.join(mark, "dirty"))
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.rmdir(mark)
    paths = [*lower, upper, work]
    plain = sum(map(len, paths)) + len(paths) < _MOUNT_DATA_MAX and not any(set(path) & set(",:\\") for path in paths)
    opened = [] if plain else [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in paths]
    if opened:  # descriptors are short, and have no characters that mean something
        paths = [f"/proc/self/fd/{fd}" for fd in opened]
    data = f"lowerdir={':'.join(paths[:-2])},upperdir={paths[-2]},workdir={paths[-1]}"
    try:
        mounts.mount("overlay", target, "overlay", 0, data + ",volatile")
    except SystemFailure as error:
        if error.errno != errno.EINVAL:
            raise
        mounts.mount("overlay", target, "overlay", 0, data)  # before Linux 5.10
    finally:
        for fd in opened:
            os.close(fd)


def mount_all(root: int, spec: Mapping[str, Any], cgroup: Cgroup, before_cgroup: Callable[[], None]) -> None:
    """The spec's mounts in their order. `before_cgroup` is called once, as late as can be: it waits until the container's groups are there.

    Raises SystemFailure or InvalidInput naming the destination.
    """
    entered = False
    own_cgroup_namespace = any(namespace["type"] == "cgroup" for namespace in spec["linux"].get("namespaces", ()))
    for mount in spec.get("mounts") or ():
        destination = mount["destination"]
        if not destination.startswith("/"):
            raise InvalidInput(f"invalid mount path: '{destination}' mount path must be absolute")
        options = mount_options.parse(mount.get("options") or ())
        kind = mount.get("type") or "bind"
        try:
            if kind == "bind" or options.bind:
                _bind(root, mount["source"], destination, options, _maps(mount, spec))
            elif kind == "overlay":
                borrowed.mount_layers(root, destination, options)
            elif kind == "cgroup":
                if not entered:
                    before_cgroup()
                    entered = True
                _mount_cgroup(root, destination, options, cgroup, private=own_cgroup_namespace)
            else:
                _mount_new(root, kind, mount.get("source") or kind, destination, options)
        except SystemFailure as error:
            raise SystemFailure(
                f'error mounting "{mount.get("source", kind)}" to rootfs at "{destination}": {error.what}', error.errno
            ) from error
        except OSError as error:
            what = f'error mounting "{mount.get("source", kind)}" to rootfs at "{destination}"'
            raise SystemFailure(what, error.errno or 0) from error
    if not entered:
        before_cgroup()


def _source(source: str, options: mount_options.MountOptions) -> int:
    """A detached copy of what is to be bound. A part of a volume is opened and copied by descriptor: whoever has the volume already may put
    a symlink in its place at any moment (CVE-2021-25741).
    """
    part, elsewhere = options.value(SUBPATH), options.value(MOUNT_NAMESPACE)
    if elsewhere is not None:
        return borrowed.from_namespace(elsewhere, source, recursive=options.recursive)
    if part is None:
        return mounts.clone_tree(source, recursive=options.recursive)
    volume = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = inroot.open_path(volume, part)
    finally:
        os.close(volume)
    try:
        return mounts.clone_tree(f"{source}/{part}", recursive=options.recursive, at=found)
    finally:
        os.close(found)


def _maps(mount: Mapping[str, Any], spec: Mapping[str, Any]) -> Callable[[int], None] | None:
    """What shows the mount with other owners, where it asks for that."""
    if not _MAPPED.isdisjoint(mount) or not _MAPPED.isdisjoint(mount.get("options") or ()):
        from atoll.runtime import extras  # the root is still the host's

        return lambda tree: extras.map_owners(tree, mount, spec["linux"])
    return None


def _bind(
    root: int, source: str, destination: str, options: mount_options.MountOptions, map_owners: Callable[[int], None] | None = None
) -> None:
    tree = _source(source, options)
    try:
        if map_owners is not None:
            map_owners(tree)
        if options.add or options.remove:
            mounts.set_attributes(tree, add=options.add, remove=options.remove)
        if options.recursive_add or options.recursive_remove:
            mounts.set_attributes(tree, add=options.recursive_add, remove=options.recursive_remove, recursive=True)
        is_directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        target = inroot.make_directory(root, destination) if is_directory else inroot.make_file(root, destination)
        _attach(tree, target, destination)
        for kind, recursive in options.propagation:  # a detached mount has no peers to be told of
            mounts.set_attributes(tree, propagation=kind, recursive=recursive)
    finally:
        os.close(tree)


def _mount_new(root: int, kind: str, source: str, destination: str, options: mount_options.MountOptions) -> None:
    covered = _open_if_there(root, destination)
    target = inroot.make_directory(root, destination) if covered is None else covered
    parameters = list(options.parameters)
    if kind == "tmpfs" and options.value("mode") is None and covered is not None:
        parameters.append(("mode", f"{stat.S_IMODE(os.fstat(target).st_mode):o}"))  # as the directory it covers, like runc; else 1777
    fd = mounts.new_filesystem(kind, parameters, source=source, attributes=options.add)
    try:
        _attach(fd, target, destination)
        for propagation, recursive in options.propagation:
            mounts.set_attributes(fd, propagation=propagation, recursive=recursive)
    finally:
        os.close(fd)


def _mount_cgroup(root: int, destination: str, options: mount_options.MountOptions, cgroup: Cgroup, *, private: bool) -> None:
    """The container's own groups: v2 as it is; of v1 a directory for each hierarchy, on a tmpfs."""
    hierarchies = list(cgroup.directories())
    layout = cgroup.layout
    if not hierarchies:
        return
    if not layout.v1:
        if private:
            _mount_new(root, "cgroup2", "cgroup", destination, options._replace(parameters=()))
        else:
            _bind(root, hierarchies[0][1], destination, options)
        return
    _mount_new(root, "tmpfs", "tmpfs", destination, options._replace(add=options.add & ~mounts.ATTR_RDONLY, parameters=(("mode", "755"),)))
    top = inroot.open_path(root, destination)  # ours alone: no path of the image's is involved below
    for point, directory in hierarchies:
        name = os.path.basename(point)
        if point != layout.unified:
            os.mkdir(name, 0o755, dir_fd=top)
            tree = mounts.clone_tree(directory, recursive=False)
            mounts.attach(tree, top, f"{destination}/{name}", name)
            os.close(tree)
    for controller, point in layout.v1.items():
        if controller != os.path.basename(point):  # "cpu" beside "cpu,cpuacct"
            os.symlink(os.path.basename(point), controller, dir_fd=top)
    mounts.set_attributes(top, add=options.add, recursive=True)
    os.close(top)


def make_devices(root: int, spec: Mapping[str, Any]) -> None:
    """The nodes and links that every container has (OCI runtime-spec, Default Devices), and the spec's own."""
    for mount in spec.get("mounts") or ():
        if mount["destination"].rstrip("/") == "/dev" and mount.get("type", "bind") == "bind":
            return  # it has been given a /dev of its own
    dev = inroot.make_directory(root, "/dev")
    for name, major, minor in _DEFAULT_DEVICES:
        _make_node(dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in _DEVICE_LINKS:
        _link(dev, name, target)
    if os.path.exists("/proc/kcore"):
        _link(dev, "core", "/proc/kcore")
    _link(dev, "ptmx", "pts/ptmx")
    os.close(dev)
    for device in spec["linux"].get("devices") or ():
        parent, name = inroot.make_parent(root, device["path"])
        kind = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR, "p": stat.S_IFIFO}[device["type"]]
        mode = kind | (device.get("fileMode") or 0o666)
        _make_node(
            parent, name, mode, os.makedev(device.get("major", 0), device.get("minor", 0)), device.get("uid", 0), device.get("gid", 0)
        )
        os.close(parent)


def _make_node(directory: int, name: str, mode: int, number: int, uid: int = 0, gid: int = 0) -> None:
    try:
        os.mknod(name, mode, number, dir_fd=directory)
    except FileExistsError:
        present = os.lstat(name, dir_fd=directory)
        if present.st_rdev == number and stat.S_IFMT(present.st_mode) == stat.S_IFMT(mode):
            return
        os.unlink(name, dir_fd=directory)
        os.mknod(name, mode, number, dir_fd=directory)
    except PermissionError as error:
        raise SystemFailure(f"create device {name}", error.errno or errno.EPERM) from error
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)


def _link(directory: int, name: str, target: str) -> None:
    try:
        os.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            os.unlink(name, dir_fd=directory)
            os.symlink(target, name, dir_fd=directory)


def protect(root: int, spec: Mapping[str, Any]) -> None:
    """Read-only paths, masked paths, and the root itself if the spec wants it read-only."""
    linux = spec["linux"]
    for path in linux.get("readonlyPaths") or ():
        fd = _open_if_there(root, path)
        if fd is not None:
            tree = mounts.clone_tree(path, recursive=True, at=fd)
            mounts.set_attributes(tree, add=mounts.ATTR_RDONLY, recursive=True)
            _attach(tree, fd, path)
            os.close(tree)
    empty = -1  # one file system for all masked directories: it can never be written to
    for path in linux.get("maskedPaths") or ():
        fd = _open_if_there(root, path)
        if fd is not None:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                cover = _null()
            elif empty < 0:
                cover = empty = mounts.new_filesystem("tmpfs", (), attributes=mounts.ATTR_RDONLY)
            else:
                cover = mounts.clone_tree(path, recursive=False, at=empty)
            _attach(cover, fd, path)
            if cover != empty:
                os.close(cover)
    if empty >= 0:
        os.close(empty)
    if spec["root"].get("readonly"):
        mounts.set_attributes(root, add=mounts.ATTR_RDONLY)


def _null() -> int:
    return mounts.clone_tree("/dev/null", recursive=False)


def enter(root: int, propagation: str = "") -> None:
    kind, recursive = mount_options.propagation(propagation)
    mounts.pivot_root(root, shared=kind == mounts.MS_SHARED)
    os.close(root)
    if kind in {mounts.MS_SHARED, mounts.MS_UNBINDABLE}:
        mounts.propagate("/", kind, recursive=recursive)


def _open_if_there(root: int, path: str) -> int | None:
    try:
        return inroot.open_path(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _attach(mount: int, target: int, destination: str) -> None:
    try:
        mounts.attach(mount, target, destination)
    finally:
        os.close(target)
