# TX1, Nano, TX2 with JetPack 4.6: CUDA 10.2, TensorRT 8.2, Python 3.6.
# CUDA, cuDNN and TensorRT come from the board when the container starts (`--runtime nvidia`) and
# are not there while the image is built. PyCUDA needs CUDA's headers, so the first stage installs
# NVIDIA's packages of CUDA 10.2, and only the compiled PyCUDA leaves it.

# Not l4t-base: where `nvidia` is Docker's default runtime, the board's /usr/local/cuda-10.2 would
# be mounted over the one that is installed here.
FROM ubuntu:18.04 AS packages
# The key of NVIDIA's package archive for Jetsons, by which apt checks the packages.
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /etc/apt/trusted.gpg.d/
RUN chmod 644 /etc/apt/trusted.gpg.d/jetson-ota-public.asc \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb https://repo.download.nvidia.com/jetson/common r32.7 main" \
        > /etc/apt/sources.list.d/jetson.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends cuda-toolkit-10-2 g++ \
        python3-dev python3-numpy python3-pip python3-setuptools python3-wheel \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/cuda-10.2/bin:$PATH \
    LIBRARY_PATH=/usr/local/cuda-10.2/targets/aarch64-linux/lib/stubs
# PyCUDA 2021.1 and later do not install on Python 3.6. This one needs six, and does not say so.
RUN python3 -m pip install --no-cache-dir --no-deps --target /opt/edgetrt \
        pycuda==2020.1 six==1.16.0

# There is no l4t-base after r32.7.1; this one serves every 32.7.x.
FROM nvcr.io/nvidia/l4t-base:r32.7.1
COPY --from=packages /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=packages /etc/apt/trusted.gpg.d/jetson-ota-public.asc /etc/apt/trusted.gpg.d/
COPY --from=packages /etc/apt/sources.list.d/jetson.list /etc/apt/sources.list.d/
# NVIDIA's OpenCV 4.1, as Ubuntu's 3.2 has no INTER_LINEAR_EXACT; and Ubuntu's numpy, as the newest
# wheel for Python 3.6 stops with "Illegal instruction" on Jetsons (numpy issue 18131).
RUN apt-get update \
    && apt-get install -y --no-install-recommends libopencv-python python3-numpy \
    && rm -rf /var/lib/apt/lists/*
# What one build measured is kept beside the run for the next; user 1000 has no home.
ENV LANG=C.UTF-8 XDG_CACHE_HOME=/data/.cache
WORKDIR /opt/edgetrt
COPY --from=packages /opt/edgetrt/ ./
COPY engines/ engines/
COPY benchmarks/ benchmarks/
# A Jetson's first user, and the group `video`, which owns the GPU's device nodes.
USER 1000:44
ENTRYPOINT ["python3", "-m", "benchmarks.device"]
