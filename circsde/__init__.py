"""Stochastic and ordinary differential equations on the torus.

Equations (:class:`SDE`, :class:`KuramotoSDE`, :func:`reverse`, :func:`probability_flow`), how to integrate them
(:func:`sdeint`, :func:`odeint`), likelihoods (:func:`log_prob`), and the laws of angles (:class:`WrappedNormal`,
:class:`VonMises`, :class:`MeanFieldGibbs`). ``__init__.pyi`` lists the public names and where they are defined.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # torch is imported when a name is used
