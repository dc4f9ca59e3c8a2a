# /etc/profile has just reset PATH; /etc/environment is where a workspace's stands. A proxy or a locale that the
# session brought along is not touched.
if [ -r /etc/environment ]; then
    eval "$(grep '^PATH=' /etc/environment)"
    export PATH
fi
