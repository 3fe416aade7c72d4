# TX1, Nano, TX2 with JetPack 4.6: CUDA 10.2, TensorRT 8.2, Python 3.6.
# CUDA, cuDNN and TensorRT come from the board when the container starts (`--runtime nvidia`) and
# are not there while the image is built.

# There is no l4t-base after r32.7.1; this one serves every 32.7.x.
FROM nvcr.io/nvidia/l4t-base:r32.7.1
# The key of NVIDIA's package archive for Jetsons, by which apt checks the packages.
ADD https://repo.download.nvidia.com/jetson/jetson-ota-public.asc /etc/apt/trusted.gpg.d/
# NVIDIA's OpenCV 4.1, as Ubuntu's 3.2 has no INTER_LINEAR_EXACT; and Ubuntu's numpy, as the newest
# wheel for Python 3.6 stops with "Illegal instruction" on Jetsons (numpy issue 18131).
RUN chmod 644 /etc/apt/trusted.gpg.d/jetson-ota-public.asc \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && echo "deb https://repo.download.nvidia.com/jetson/common r32.7 main" \
        > /etc/apt/sources.list.d/jetson.list \
    && apt-get update \
    && apt-get install -y --no-install-recommends libopencv-python python3-numpy \
    && rm -rf /var/lib/apt/lists/*
# What one build measured is kept beside the run for the next; user 1000 has no home.
ENV LANG=C.UTF-8 XDG_CACHE_HOME=/data/.cache
WORKDIR /opt/edgetrt
COPY engines/ engines/
COPY benchmarks/ benchmarks/
# A Jetson's first user, and the group `video`, which owns the GPU's device nodes.
USER 1000:44
ENTRYPOINT ["python3", "-m", "benchmarks.device"]
