"""A real RTSP server, from GStreamer. Run with the system's Python, which has its bindings.

python3 rtsp_server.py PORT                      a moving picture as MJPEG at /live
python3 rtsp_server.py PORT FILE.h264            takes a stream that is sent to /live, as user with password hunter2,
                                                 and keeps it
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PLAY = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=184,framerate=25/1 "
    "! jpegenc ! rtpjpegpay name=pay0 pt=26 )"
)
RECORD = "( rtph264depay name=depay0 ! video/x-h264,stream-format=byte-stream ! filesink buffer-mode=2 location={} )"


def expect_password(server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory) -> None:
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "sender")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("user", "hunter2"), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for name in (GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT):
        permissions.add_permission_for_role("sender", name, True)
    factory.set_permissions(permissions)


Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
if len(sys.argv) > 2:
    factory.set_launch(RECORD.format(sys.argv[2]))
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    expect_password(server, factory)
else:
    factory.set_launch(PLAY)
    factory.set_shared(True)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
