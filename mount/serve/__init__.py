"""The tree of a store by HTTP, without FUSE. Its floor is that of `mount.kernel`: it stands on the view and the drop
box, and the daemon (`mount.daemon.http_server`) runs it.

`routes.py` has the one place that gives each request its handler. Handlers take what they need from `Site` (`site.py`):
the tree, the drop box, the record of imports, the threads that read and write.

HTML is made in `pages/` only, by `Pages` (`pages/pages.py`). The seam: `Routes` calls

- `Pages.folder(request, path, folder)` for GET of a directory of the tree, `/` included,
- `Pages.drop_box(request, path)` for GET of a directory in `incoming/`,
- `Pages.outcomes(request, status, outcomes)` for POST of a form with files: JSON, or a page if the client accepts HTML,
- `Pages.own(request, activity, names)` for all paths below `/.page/`, such as assets and events. No name of the tree
  begins so. Requests that change anything have passed the guards (Host, user, origin) before.

A handler that looks at the store or the drop box does so in a thread: `await site.read(function, ...)`.
"""
