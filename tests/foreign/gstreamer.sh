# GStreamer, whose registry is filled by loading every plug-in in a child.
# packages: gstreamer1.0-tools gstreamer1.0-plugins-base
# needs: gst-inspect-1.0 gst-launch-1.0
# needs-success: gst-inspect-1.0 videotestsrc && gst-inspect-1.0 audioresample
# pinned: /libgst[a-z]*\.so
# results: 20
export GST_REGISTRY=$WORK/registry.bin
gst-inspect-1.0 | sort
gst-launch-1.0 -q videotestsrc num-buffers=20 ! video/x-raw,width=64,height=48,format=RGB ! filesink location=video.raw
sha256sum video.raw
gst-launch-1.0 -q audiotestsrc num-buffers=20 ! audioconvert ! audioresample ! audio/x-raw,rate=8000,format=S16LE,channels=1 ! \
    filesink location=audio.raw
sha256sum audio.raw
