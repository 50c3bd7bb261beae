"""Libraries that are loaded into a server with LD_PRELOAD, compiled where they are needed."""
import os
import shutil
import subprocess


def library(source, directory):
    """Compiles a file of C into the directory; the path of the library, or None, and says why, where that cannot be."""
    name = os.path.basename(source)
    compiler = shutil.which("cc")
    if not compiler:
        print("%s: there is no C compiler" % name)
        return None
    target = os.path.join(directory, os.path.splitext(name)[0] + ".so")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", target, source]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        print("%s does not compile: %s" % (name, done.stderr[-400:]))
        return None
    return target
