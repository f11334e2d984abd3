"""`inner_kernel`: for functions that only other kernels call.

Without the wrappers by which Python could call them, which unpack each array of the working memory and cost a third of the
compilation.
"""

import numba

inner_kernel = numba.njit(cache=True, nogil=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
