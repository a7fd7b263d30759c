"""What can be served: models now; pipelines and graphs are servables too."""
